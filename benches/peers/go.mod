module plimsoll/peers

go 1.19
