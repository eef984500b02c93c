"""Draw plain values as matplotlib figures, and save figures as PNG or SVG.

matplotlib takes 0.3 s to load, so `import hundredfold` must not import these modules.
"""
