"""Reading and writing the layouts of the published datasets."""
