"""What happened: models of metrics, case records and batch records, and the files that hold them."""
