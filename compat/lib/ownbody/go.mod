module anabranch/compat/lib/ownbody

go 1.26.0
