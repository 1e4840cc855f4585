package forklight.runtime;

/** A function that is ready to be called: the event's JSON in, the answer's out. */
interface Handler {
    byte[] run(byte[] event, Invocation invocation) throws Throwable;
}
