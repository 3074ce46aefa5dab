"""What is to be run: settings, methods, runs on data sets, paths. Imports neither torch nor numpy."""
