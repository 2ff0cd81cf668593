module anabranch/compat/steps

go 1.26.0
