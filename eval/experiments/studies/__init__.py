"""What is run in a cell: each study is a module here with Options, REVISION and run."""
