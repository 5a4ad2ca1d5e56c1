"""Query attacks on a server that remembers its queries, and what they come to."""
