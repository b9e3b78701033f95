"""What a nova.conf says about the image cache, as an `ImageCachePolicy`.

`options` knows nova's options and their history, `reader` reads a file as nova would, `policy` turns what it
finds into a manifest with comments. oslo.config, nova's own library, gives the syntax, the types and the
interpolation; it is an extra (`basekeeper[nova-conf]`) and imported only when a file is read.
"""
