-- copy_cards
COPY cards (card_id, shop, cid, payment_profile_id, first_transaction_id, customer, aliases, created_at) FROM STDIN (FORMAT binary)
