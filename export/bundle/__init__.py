"""A folder with all that serving an exported file takes: `write`.

What goes into it stands in `bundle-files/`, as it is.
"""
