"""What makes events of itself: buses with rules, schedules. They decide what goes to whom; gateway.queueing brings it there."""
