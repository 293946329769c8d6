"""The published datasets: their layouts, read and written."""
