import Converter
print("audiotoken-convert")
