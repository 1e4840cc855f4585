/* The same as fuzz_grpc_http2.c, of a connection to the HTTP port: any request is let in. */
#define FUZZ_WEB 1
#include "fuzz_grpc_http2.c"
