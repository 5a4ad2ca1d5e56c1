"""What the README and the first lines of docs/ show, from committed results: `make results`."""
