"""The gRPC front door: services of package forklight.v1 over dispatch and control."""
