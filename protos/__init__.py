"""Wire contract: committed protobuf sources and the stubs made from them."""
