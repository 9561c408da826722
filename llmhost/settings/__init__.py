"""Every option of llmhost: type, default and documentation, one module a component.

`reader.read_settings` is the only reader of inventory data; everything else takes the
`root.Settings` that it returns.
"""
