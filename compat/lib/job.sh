# For the scripts of jobs on the Java virtual machine; sourced after the `here` of the script is set.
#
# java_job: fetches what pom.xml pins, compiles src where there is one, and runs job.py, which finds jobs/jobs.py and the
# class path in CLASSPATH_OF_JOB.
. "$here/../lib/java.sh"
. "$here/../lib/venv.sh"

java_job() {
    local python jobs=$here/../lib/jobs
    java_program "$here"
    python=$(venv "$jobs")
    export CLASSPATH_OF_JOB=$classpath PYTHONPATH="$jobs:$here/../lib" PYTHONDONTWRITEBYTECODE=1
    exec "$python" "$here/job.py" "$@"
}

job_available() {
    java_available && venv_lacks
}
