"""From what the user gives as MODEL to something that can be served.

`model` finds the file or folder, downloading it first if MODEL is a name; `assembly` opens it and gathers its text
side, name and sampling defaults. Every command that runs a model starts here.
"""
