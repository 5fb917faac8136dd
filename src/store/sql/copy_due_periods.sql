-- copy_due_periods
COPY due_periods (due_at, subscription_id, period_no, due_on) FROM STDIN (FORMAT binary)
