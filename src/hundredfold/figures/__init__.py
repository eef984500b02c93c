"""Every drawing: from plain values to a matplotlib figure, and from that to PNG or SVG."""
