"""The paper exchange on the network: REST, WebSocket API, market streams and the control port."""
