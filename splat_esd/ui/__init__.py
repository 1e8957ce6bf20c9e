"""One local page: ask for runs, watch them, take their files.

Python's own http.server and one static page. viser, which draws the live views, has neither a
gallery nor downloads by address, and its panels are no form for a keyboard or a phone.
"""
