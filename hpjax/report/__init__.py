"""What a person reads of a sweep: progress, figures and pages."""
