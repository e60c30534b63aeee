"""What is fitted on validation rows after training: fusion, prediction sets, references for unfamiliar input."""
