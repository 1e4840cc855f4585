package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;

/** Cannot be made. */
public class Broken implements RequestHandler<Object, Object> {
    public Broken() {
        throw new IllegalArgumentException("cannot begin");
    }

    @Override
    public Object handleRequest(Object event, Context context) {
        return event;
    }
}
