"""The course: weeks, electives and what each must reach."""
