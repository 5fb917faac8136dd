-- count_archived
UPDATE subscriptions s
SET archived_to = greatest(s.archived_to, n.last_no), archived_payments = s.archived_payments + n.payments
FROM (
    SELECT c.subscription_id, max(c.period_no) AS last_no, (count(*) FILTER (WHERE c.state = 'paid'))::integer AS payments
    FROM charges c WHERE c.charge_id = ANY($1) GROUP BY c.subscription_id
) n
WHERE s.subscription_id = n.subscription_id
