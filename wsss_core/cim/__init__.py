"""CIM: complete instances mined from proposals; peaks and labels of proposals, network, mining, training, scores."""
