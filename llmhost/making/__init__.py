"""Making models on the controller: convert, quantize, evaluate. docs/making.md."""
