//! Takes over listening sockets, drains gracefully and deploys without losing a request.
