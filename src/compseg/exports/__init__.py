"""Maps and segmenters in the formats of other programs.

Imports nothing: graphs need torch's compiler, and maps do not.
"""
