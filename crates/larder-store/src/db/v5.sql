-- What a parent is to its child. `below`: the child lies upon it. Of a stack, `layer`: its own layer is
-- one of the child's, without what lies below it; `shown`: it has the files that the child shows.
ALTER TABLE snapshot_parents ADD COLUMN
  role TEXT NOT NULL DEFAULT 'below' CHECK (role IN ('below', 'layer', 'shown'));
