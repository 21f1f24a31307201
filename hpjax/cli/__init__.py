"""What commands share: arguments, exit statuses, the allocator that a process starts with."""
