-- decline_share
-- The ids of attempts begin with the time at which they were permitted, so a day of them is a stretch of the primary key.
SELECT shop AS "shop: ShopName",
       count(*) FILTER (WHERE state = 'rejected') AS "declined!",
       count(*) AS "debits!"
FROM attempts
WHERE attempt_id >= $1 AND attempt_id < $2 AND state IN ('rejected', 'settled')
GROUP BY shop
