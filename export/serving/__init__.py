"""A server for one machine: recordings by HTTP, answered by exported files.

`app.create_app` makes the application, which `fastloaa serve` runs; it needs the extra `fastloaa[serve]`.
"""
