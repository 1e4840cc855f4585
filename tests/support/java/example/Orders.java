package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.math.BigDecimal;
import java.time.LocalDate;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** A handler that is a class, with types of its own. */
public class Orders extends Base<Orders.Order> {
    public enum Kind {
        SMALL,
        LARGE
    }

    public static class Item {
        private String name;
        private int count;
        public BigDecimal price;

        public String getName() {
            return name;
        }

        public void setName(String name) {
            this.name = name;
        }

        public int getCount() {
            return count;
        }

        public void setCount(int count) {
            this.count = count;
        }
    }

    public static class Order {
        private List<Item> items;
        private Map<String, Item> byName;
        private Optional<Kind> kind = Optional.empty();
        private LocalDate day;
        private byte[] raw;
        private long[] numbers;
        private Set<Kind> kinds;
        private boolean urgent;

        public List<Item> getItems() {
            return items;
        }

        public void setItems(List<Item> items) {
            this.items = items;
        }

        public Map<String, Item> getByName() {
            return byName;
        }

        public void setByName(Map<String, Item> byName) {
            this.byName = byName;
        }

        public Optional<Kind> getKind() {
            return kind;
        }

        public void setKind(Optional<Kind> kind) {
            this.kind = kind;
        }

        public LocalDate getDay() {
            return day;
        }

        public void setDay(LocalDate day) {
            this.day = day;
        }

        public byte[] getRaw() {
            return raw;
        }

        public void setRaw(byte[] raw) {
            this.raw = raw;
        }

        public long[] getNumbers() {
            return numbers;
        }

        public void setNumbers(long[] numbers) {
            this.numbers = numbers;
        }

        public Set<Kind> getKinds() {
            return kinds;
        }

        public void setKinds(Set<Kind> kinds) {
            this.kinds = kinds;
        }

        public boolean isUrgent() {
            return urgent;
        }

        public void setUrgent(boolean urgent) {
            this.urgent = urgent;
        }
    }

    @Override
    Order change(Order order) {
        for (Item item : order.getItems()) {
            item.setCount(item.getCount() + 1);
        }
        return order;
    }
}

abstract class Base<T> implements RequestHandler<T, T> {
    abstract T change(T value);

    @Override
    public T handleRequest(T value, Context context) {
        return change(value);
    }
}
