"""What the host costs, side by side with its peers. See README.md."""
