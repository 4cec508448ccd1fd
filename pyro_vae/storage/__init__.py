"""What is kept on disk: files, checkpoints, the folders of runs, and long computations that go on."""
