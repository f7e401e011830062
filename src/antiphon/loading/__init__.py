"""From what a person means by MODEL to something that can be served.

`model` finds the file or folder, and has it brought first where it is a name; `assembly` opens it and puts its text
side, its name and its advice together. All who run a model begin here.
"""
