"""`nclab-runs board`: the runs of some folders as one HTML page that needs no server and no network.

`record` reads a run, `page` makes the page of many, from the templates beside them. Brings pandas and jinja2: for this
command alone.
"""
