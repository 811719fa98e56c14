import WeightFile
