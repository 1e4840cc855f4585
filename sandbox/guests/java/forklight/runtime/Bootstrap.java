package forklight.runtime;

import com.amazonaws.services.lambda.runtime.LambdaRuntime;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOError;
import java.io.PrintStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * What runs Java functions: Lambda's rules for handlers, over the Runtime API of the worker beside it.
 * The rules are those of AWS's client (aws-lambda-java-runtime-interface-client); this one needs nothing but a JDK.
 */
public final class Bootstrap {
    private static final String TRACE_PROPERTY = "com.amazonaws.xray.traceHeader";

    private Bootstrap() {}

    public static void main(String[] arguments) throws Exception {
        System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8"));
        System.setErr(new PrintStream(new FileOutputStream(FileDescriptor.err), true, "UTF-8"));
        Logger logger = new Logger();
        LambdaRuntime.setLogger(logger);
        Api api = new Api(System.getenv("AWS_LAMBDA_RUNTIME_API"));
        Handler handler;
        try {
            ClassLoader loader = userCode(System.getenv("LAMBDA_TASK_ROOT"));
            Thread.currentThread().setContextClassLoader(loader);
            handler = Handlers.load(System.getenv("_HANDLER"), loader);
        } catch (Fault fault) {
            logger.failure(fault.report());
            api.post("init/error", fault.json());
            System.exit(1);
            return;
        }
        while (serve(api, handler, logger)) {}
        System.exit(0);
    }

    /** One invocation. False: the process is in no state for another. */
    private static boolean serve(Api api, Handler handler, Logger logger) throws Exception {
        Api.Answer next = api.next();
        Invocation invocation = new Invocation(next.headers, logger);
        logger.setInvocation(invocation);
        if (invocation.getXrayTraceId() != null) {
            System.setProperty(TRACE_PROPERTY, invocation.getXrayTraceId());
        } else {
            System.clearProperty(TRACE_PROPERTY);
        }
        String path = "invocation/" + invocation.getAwsRequestId();
        boolean goesOn = true;
        try {
            api.post(path + "/response", handler.run(next.body, invocation));
            Thread.interrupted(); // whatever the function has left set
        } catch (Fault fault) {
            goesOn = !fault.fatal;
            logger.failure(fault.report());
            api.post(path + "/error", fault.json());
        } catch (Throwable thrown) {
            goesOn = !(thrown instanceof VirtualMachineError || thrown instanceof IOError);
            Fault fault = Fault.thrown(thrown);
            logger.failure(fault.report());
            api.post(path + "/error", fault.json());
        }
        System.out.flush();
        System.err.flush();
        return goesOn;
    }

    /** The package's classes, its lib/*.jar and those of the layers (/opt/java/lib), as on Lambda. */
    private static ClassLoader userCode(String root) throws Exception {
        List<URL> urls = new ArrayList<>();
        urls.add(new File(root).toURI().toURL());
        for (String folder : new String[] {root + "/lib", "/opt/java/lib"}) {
            String[] names = new File(folder).list((parent, name) -> name.endsWith(".jar"));
            if (names != null) {
                Arrays.sort(names);
                for (String name : names) {
                    urls.add(new File(folder, name).toURI().toURL());
                }
            }
        }
        return new URLClassLoader(urls.toArray(new URL[0]), Bootstrap.class.getClassLoader());
    }
}
