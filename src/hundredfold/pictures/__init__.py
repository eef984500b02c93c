"""Read a single picture from a file, a URL, or an array, and find the pictures in a folder."""
