-- archive_notices
INSERT INTO archived_notices (notice_id, shop, body_sha256, body, order_id, transaction_id, attempt_id, is_refund, refund_of,
                              says_settled, state, received_at, received_count)
SELECT notice_id, shop, body_sha256, body, order_id, transaction_id, attempt_id, is_refund, refund_of, says_settled, state, received_at,
       received_count
FROM notices WHERE notice_id = ANY($1)
