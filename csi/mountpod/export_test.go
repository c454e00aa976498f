package mountpod

// DieAt ends the keeper at one of its steps, as the end of its process would: step is called before each, and after its first error nothing is done
// any more.
func (k *Keeper) DieAt(step func(what string) error) { k.store.step.Store(&step) }
