"""How a feed is made: wanted, searched tier by tier, filtered, explored, cut into pages."""
