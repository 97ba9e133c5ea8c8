"""Results for people: the page, its plots and tables, the terminal, videos."""
