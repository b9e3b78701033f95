module basekeeper.test/pause

go 1.26.0

tool basekeeper.test/pause
